"""DICOM images as a data set: rescaled, windowed, frame by frame."""
