"""A cluster elsewhere: its head found and reached over SSH, commands run there, its front seen from here."""
