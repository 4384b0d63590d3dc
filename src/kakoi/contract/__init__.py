"""What parties agree to: objects, signatures, approvals. Pure; in every trusted base."""
