package stack

import (
	"context"
	"errors"
)

const (
	mysqlImage  = "mysql:9.7"
	rabbitImage = "rabbitmq:4.3-management"
)

func imageVersion(string) string { return "" }

func (m *MySQL) launchContainer(context.Context) (instance, error) {
	return nil, errors.New("not yet")
}
func (r *RabbitMQ) launchContainer(context.Context) (instance, error) {
	return nil, errors.New("not yet")
}
func (r *RabbitMQ) container() string { return "" }
