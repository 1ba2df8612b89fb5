"""The gRPC core: accounts, messages, carriers and the store below them."""
