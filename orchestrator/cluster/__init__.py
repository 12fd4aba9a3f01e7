"""What machines there are: cluster files read into a frozen snapshot."""
