"""Every two features of a request at once, tried on the bundled model: what each pair does to the tokens."""
