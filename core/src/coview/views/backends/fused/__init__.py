"""All views of a batch in one go, every parameter drawn on the device."""
