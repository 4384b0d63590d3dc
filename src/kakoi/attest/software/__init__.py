"""The platform without hardware: DCAP quotes under a local root. Only for development and tests."""
