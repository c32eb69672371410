"""All views of a batch at once, with every parameter drawn on the device."""
