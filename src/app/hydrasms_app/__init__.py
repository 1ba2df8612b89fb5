"""The program: settings, composition, roles and the command line."""
