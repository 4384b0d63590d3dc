"""Known weaknesses first: what is built into what (SBOM), what is known about it (advisories), and which past runs it touches."""
