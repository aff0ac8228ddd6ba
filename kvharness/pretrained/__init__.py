"""Which model is meant, and its tokenizer; nothing here runs one."""
