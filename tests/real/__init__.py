"""What needs public models; see the conftest there."""
