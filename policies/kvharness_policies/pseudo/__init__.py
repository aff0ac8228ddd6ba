"""What makes a made-up query like a true one: figures about DapQ."""
