"""The data owner's own program: decides, keeps keys and ledger, makes outbound requests only."""
