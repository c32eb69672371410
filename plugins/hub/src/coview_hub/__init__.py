"""The Hugging Face Hub: data sets from it, weights from it and to it."""
