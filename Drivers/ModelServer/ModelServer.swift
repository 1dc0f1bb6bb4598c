// ModelServer
