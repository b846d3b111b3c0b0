"""What the GGUF loader, configuration and tokenizer share: the file's header, its names, its architectures."""
