"""HTTP and WebSocket over the predictor. Needs the extra `serve`."""
