"""The demo: the tutorial's two networks on images, and a page about them."""
