"""From a hospital's files to sealed data sets: schema, sources, conversion, validation report, sealing."""
