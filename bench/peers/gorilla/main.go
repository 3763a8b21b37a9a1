// A hub of the kind that many start from: gorilla/websocket, two goroutines and a channel for each connection.
// It takes everybody in, checks no token, and reads what comes. It prints its port, and ends at a signal.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/gorilla/websocket"
)

var upgrader = websocket.Upgrader{
	ReadBufferSize:  1024,
	WriteBufferSize: 1024,
	CheckOrigin:     func(*http.Request) bool { return true },
}

func serve(writer http.ResponseWriter, request *http.Request) {
	connection, err := upgrader.Upgrade(writer, request, nil)
	if err != nil {
		return
	}
	outbox, done := make(chan []byte, 256), make(chan struct{})
	go func() {
		defer connection.Close()
		for {
			select {
			case message := <-outbox:
				if connection.WriteMessage(websocket.TextMessage, message) != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	for {
		if _, _, err := connection.ReadMessage(); err != nil {
			return
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/ws", serve)
	fmt.Printf("ready on http://127.0.0.1:%d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, nil))
}
