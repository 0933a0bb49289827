"""Passes: Graph in, Graph out; each says what it keeps."""
