"""Facts read from outside: the Hugging Face hub."""
