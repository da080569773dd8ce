"""The networks: patches, stem, vision transformer, and how they are stored."""
