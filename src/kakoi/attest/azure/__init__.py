"""Azure confidential virtual machines: a hardware report of the paravisor, and the quote of its virtual TPM."""
