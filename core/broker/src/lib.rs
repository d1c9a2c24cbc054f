//! The socket side of a broker: listener, connections, one handler per API.
