"""The way from one container to another: who they are, what a frame meets, on which host."""
