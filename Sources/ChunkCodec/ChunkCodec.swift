// ChunkCodec
