"""What a hub shows its operators, and lets them do: signed in by OpenID Connect, with more than a password, on a listener of its own."""
