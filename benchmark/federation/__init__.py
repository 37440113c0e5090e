"""The federation: data dealt out, clients, the server, and what crosses between them."""
