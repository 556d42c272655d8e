"""Music Transformer: chorales and piano performances."""
