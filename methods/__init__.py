"""Federated-learning methods: one file (or folder) is one plugin."""
