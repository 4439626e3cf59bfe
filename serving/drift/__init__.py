"""What a log of requests says beside the products that its model was made from."""
