"""What of the network has to be looked after in a migration."""
