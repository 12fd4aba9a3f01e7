"""What runs inside Ray actors and beside them: the engine server and the front."""
