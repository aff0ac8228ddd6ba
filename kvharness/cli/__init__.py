"""Commands of `kvharness`, one module each; none needs a model, none imports torch."""
