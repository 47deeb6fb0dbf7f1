"""A file for each command: options → a job → what is printed."""
