"""The command line: one file per command, each only asks the API and shows what it answers.

Results go to stdout, everything about the work (progress, status, errors) to stderr.
"""
