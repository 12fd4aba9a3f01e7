"""Where a model's weights come from, where they lie on a machine, and whether they are whole."""
