"""The command line: one module for each family of commands; a command imports what it needs when it runs."""
