"""The verbs: what the command line and the Python API offer, built from the rooms below."""
