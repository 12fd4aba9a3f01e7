"""What outlives a process: the state folder, secrets and records of what was started here."""
