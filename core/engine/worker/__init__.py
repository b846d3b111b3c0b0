"""One rank: inputs, forward pass, sampling, page moves."""
