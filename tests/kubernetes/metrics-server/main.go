// Command metrics-server is the stock server of what pods and nodes use, built from its Go module.
package main

import (
	"os"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

func main() {
	if app.NewMetricsServerCommand(genericapiserver.SetupSignalHandler()).Execute() != nil {
		os.Exit(1)
	}
}
