//! Names the crate whose sources `server.cpp` is compiled with; there is nothing in it.
