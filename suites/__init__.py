"""The kvharness suites: pytest collections over policy x retention x seed."""
