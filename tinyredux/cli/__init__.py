"""The command line and the magics: thin faces of public functions."""
