"""The commands that judge a store; none needs a model, none imports torch."""
