"""Guards on the texts of models: what a request may carry, and what an answer may say."""
