"""AMD SEV-SNP attestation reports: parse, verify, appraise."""
