"""What lies in files: the work directory and the images of each round."""
