"""The command line: verbs, flags, messages. Talk goes to stderr, results to stdout."""
